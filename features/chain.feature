Feature: Chain modules
  The output of each step is the input of the next.

  Background:
    Given the module "upper"
    And the module "in-place"
    And the module "wordcount"

  Scenario Outline: Two plugins and a command over <door>
    When I send this chain over <door>
      """
      {"steps":["upper","in-place","wordcount"],"input":"hello big world"}
      """
    Then the chain has 3 steps
    And the output is "0 3 15"

    Examples:
      | door |
      | NATS |
      | HTTP |

  Scenario: A step may bring its own environment
    Given the module "greet"
    When I send this chain over NATS
      """
      {"steps":["upper",{"module":"greet","env":{"GREETING":"Hei"}}],"input":"ada"}
      """
    Then the output is "Hei, ADA!"

  Scenario Outline: A chain that breaks over <door> says where
    Given the module "alloc-traps"
    When I send this chain over <door>
      """
      {"steps":["upper","alloc-traps","in-place"],"input":"hello"}
      """
    Then it is refused as "guest_trapped"
    And the refusal names "HELLO"

    Examples:
      | door |
      | NATS |
      | HTTP |

  Scenario: Ten steps are the most
    When I send this chain over NATS
      """
      {"steps":["upper","upper","upper","upper","upper","upper","upper","upper","upper","upper","upper"],"input":"hello"}
      """
    Then it is refused as "invalid_request"

  Scenario Outline: A chain under a name is called as a module is, over <door>
    Given the chain "shout" of "upper" and "in-place"
    When I call "shout" with "hello" over <door>
    Then the answer is "OLLEH"

    Examples:
      | door |
      | NATS |
      | HTTP |

  Scenario: A chain is no step of a chain
    Given the chain "shout" of "upper" and "in-place"
    When I send this chain over NATS
      """
      {"steps":["upper","shout"],"input":"hello"}
      """
    Then it is refused as "invalid_request"
    And the refusal names "shout is a chain"
