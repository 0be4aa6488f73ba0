Feature: See what is there and what it does

  Scenario Outline: Discovery shows where to send <what>
    When I ask NATS for the services that are there
    Then the service "wess" takes requests on "<subject>"

    Examples:
      | what          | subject           |
      | invocations   | wess.invoke       |
      | chains        | wess.chain        |
      | modules       | wess.store        |
      | a list        | wess.modules.list |

  Scenario: A guest's log lines can be tailed
    Given the module "greet"
    And I tail "wess.logs.>"
    When I call "greet" with "Ada" over HTTP
    Then the tail shows "greeting Ada" on "wess.logs.greet"

  Scenario: What a command says on stderr is its log
    Given the module "cat"
    And I tail "wess.logs.cat"
    When I call "cat" with "fish" over NATS
    Then the answer is "fish"
    And the tail shows "cat: 4 bytes" on "wess.logs.cat"

  Scenario: Health and metrics
    Given the module "upper"
    And I called "upper" with "hello" over NATS
    Then its admin port answers "/livez"
    And its admin port answers "/readyz"
    And its metrics have counted wess_worker_calls_total{code="ok"}
    And its OpenAPI document has the path /v1/invoke
