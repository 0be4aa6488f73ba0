Feature: The wess command
  For people by default, for programs when asked.

  Scenario: Store, call and look
    When I run wess store cli-upper guests/out/upper.wasm
    Then it prints something with "cli-upper"
    When I run wess invoke cli-upper hello
    Then it prints "HELLO"
    When I pipe "from a pipe" into wess invoke cli-upper -
    Then it prints "FROM A PIPE"
    When I run wess ls
    Then it prints something with "cli-upper"
    When I run wess describe cli-upper
    Then it prints something with "process"

  Scenario: Typed arguments and JSON output
    Given the module "math"
    When I run wess invoke math --function divmod --args '[17,5]' --output json
    Then it prints JSON whose results is [3, 2]

  Scenario: Environment for a plugin
    Given the module "greet"
    When I run wess invoke greet Ada --env GREETING=Hei
    Then it prints "Hei, Ada!"

  Scenario: A chain
    Given the module "upper"
    And the module "in-place"
    When I run wess chain upper in-place --input hello
    Then it prints "OLLEH"

  Scenario: Tag and remove
    Given the guest "upper" is stored as "cli-brief"
    When I run wess tag cli-brief stable 1
    Then it prints something with "stable"
    When I run wess invoke cli-brief@stable hello
    Then it prints "HELLO"
    When I run wess rm cli-brief
    And I run wess invoke cli-brief hello
    Then it fails and says "module_not_found"

  Scenario: Completions for a shell
    When I run wess completions bash
    Then it prints something with "complete"
