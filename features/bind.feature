Feature: Bindings
  A module runs for each message of a subject or a stream, and nobody has to call it.

  Scenario Outline: Bind a subject over <door>, and take the binding away
    Given the module "upper"
    When I bind "<name>" over <door>
      """
      {"module":"upper","subject":"texts.<name>.*"}
      """
    And I ask "texts.<name>.new" with "hello"
    Then the answer is "HELLO"
    When I list the bindings over <door>
    Then "<name>" is among them
    When I unbind "<name>" over <door>
    And I list the bindings over <door>
    Then "<name>" is not among them

    Examples:
      | door | name      |
      | NATS | bind-nats |
      | HTTP | bind-http |
      | CLI  | bind-cli  |

  Scenario Outline: A stream's messages run, and their outputs are published where the binding says, over <door>
    Given the module "upper"
    And the stream "<stream>" with "first" and "second" in it
    And I tail "shouted.<stream>"
    When I bind "<name>" over <door>
      """
      {"module":"upper","stream":"<stream>","publish_to":"shouted.<stream>"}
      """
    Then the tail shows "FIRST" and "SECOND" in any order
    When I unbind "<name>" over <door>
    Then the stream "<stream>" has no consumer

    Examples:
      | door | name        | stream      |
      | NATS | stream-nats | STREAM-NATS |
      | HTTP | stream-http | STREAM-HTTP |
      | CLI  | stream-cli  | STREAM-CLI  |

  Scenario Outline: What would feed itself is refused over <door>
    Given the module "upper"
    When I bind "ring" over <door>
      """
      {"module":"upper","subject":"ring.>","publish_to":"ring.again"}
      """
    Then it is refused as "invalid_request"

    Examples:
      | door |
      | NATS |
      | HTTP |
      | CLI  |
