Feature: Components
  What I wrote against an interface, others call with JSON.

  Scenario Outline: Records go in and come out over <door>
    Given the module "greeter"
    When I send this invoke over <door>
      """
      {"module":"greeter","function":"greet","args":[{"name":"Ada","age":36},"warm"]}
      """
    Then the results are [{"ok":{"text":"Welcome, Ada!","adult":true}}]

    Examples:
      | door |
      | NATS |
      | HTTP |

  Scenario Outline: Text goes in and comes out as it is over <door>
    Given the module "greeter"
    When I call the function "<function>" of "greeter" with "Ada" over <door>
    Then the answer is "Hello, Ada!"

    Examples:
      | door | function                          |
      | NATS | hello                             |
      | HTTP | hello                             |
      | NATS | example:greet/greeter@1.0.0#hello |
      | HTTP | example:greet/greeter@1.0.0#hello |

  Scenario: An error is the guest's answer
    Given the module "greeter"
    When I send this invoke over NATS
      """
      {"module":"greeter","function":"example:greet/greeter#greet","args":[{"name":""},"plain"]}
      """
    Then the results are [{"err":"nobody to greet"}]

  Scenario: What does not fit is named by its place
    Given the module "greeter"
    When I send this invoke over HTTP
      """
      {"module":"greeter","function":"greet","args":[{"name":"Ada","age":-1},"warm"]}
      """
    Then it is refused as "invalid_arguments"
    And the refusal names "args[0].age: expected u8, got -1"

  Scenario: What a component is
    Given the module "greeter"
    When I describe "greeter" over HTTP
    Then its ABI is "component"
    And it exports "example:greet/greeter@1.0.0#hello" with ["string"] giving ["string"]
    And its WIT has "record person {"
