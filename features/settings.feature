Feature: What a module's owner says of it

  Scenario: Settings are part of a version, and a tag leads back to them
    Given the guest "greet" is stored as "terms"
    When I run wess configure terms --env GREETING=Salut --description greets
    Then it prints something with "version 2"
    When I call "terms" with "Ada" over HTTP
    Then the answer is "Salut, Ada!"
    When I run wess tag terms stable 1
    And I call "terms@stable" with "Ada" over NATS
    Then the answer is "Hello, Ada!"

  Scenario: A file says it all
    When I run wess store --settings features/settings.toml
    Then it prints something with "from-a-file"
    When I run wess describe from-a-file
    Then it prints something with "GREETING=Bonjour"
    When I call "from-a-file" with "Ada" over HTTP
    Then the answer is "Bonjour, Ada!"

  Scenario: A component sends requests to hosts that it is granted
    Given the guest "fetch" is stored as "fetcher"
    When I run wess invoke fetcher --function fetch --args '[false,"GATEWAY","/livez",null,0]' --output json
    Then it prints JSON whose results is [{"err":"HTTP-request-denied"}]
    When I run wess configure fetcher --allow-http GATEWAY
    And I run wess invoke fetcher --function fetch --args '[false,"GATEWAY","/livez",null,0]' --output json
    Then it prints something with "200"
    When I run wess describe fetcher
    Then it prints something with "calls"

  Scenario: A component keeps objects in containers that it is granted
    Given the guest "keeper" is stored as "keeping"
    When I run wess invoke keeping --function make --args '["pictures"]' --output json
    Then it prints something with "not granted the container"
    When I run wess configure keeping --allow-blobstore pictures
    And I run wess invoke keeping --function make --args '["pictures"]'
    And I run wess invoke keeping --function keep --args '["pictures","a",[104,105]]' --output json
    Then it prints JSON whose results is [{"ok":null}]
    When I run wess invoke keeping --function look --args '["pictures","a",0,9]' --output json
    Then it prints JSON whose results is [{"ok":{"base64":"aGk="}}]
    When I run wess describe keeping
    Then it prints something with "containers"
