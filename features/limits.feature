Feature: Limits hold whatever a guest does

  Background:
    Given the module "upper"

  Scenario Outline: A loop without end, over <door>
    Given the module "spin"
    When I send this invoke over <door>
      """
      {"module":"spin","function":"spin","limits":{"timeout_ms":300}}
      """
    Then it is refused as "deadline_exceeded"
    And it took less than 5 seconds
    And "upper" still answers "HELLO" to "hello" over <door>

    Examples:
      | door |
      | NATS |
      | HTTP |

  Scenario Outline: A guest that sits and waits: <guest>
    Given the module "<guest>"
    When I send this invoke over NATS
      """
      {"module":"<guest>","limits":{"timeout_ms":300}}
      """
    Then it is refused as "deadline_exceeded"
    And it took less than 5 seconds

    Examples:
      | guest      |
      | sleep-hour |
      | read-stdin |

  Scenario: The time may be set by a header as well
    Given the module "spin"
    When I call "spin.spin" over NATS with the header Wess-Timeout-Ms: 200
    Then it is refused as "deadline_exceeded"

  Scenario: Fuel runs out where it was limited
    Given the module "spin"
    When I send this invoke over HTTP
      """
      {"module":"spin","function":"spin","limits":{"fuel":100000}}
      """
    Then it is refused as "out_of_fuel"

  Scenario: Memory is refused to the guest first
    Given the module "memory-bomb"
    When I send this invoke over NATS
      """
      {"module":"memory-bomb","function":"grow_until_refused","limits":{"memory_mb":2}}
      """
    Then the results are [32]
    When I send this invoke over NATS
      """
      {"module":"memory-bomb","function":"grow_or_trap","limits":{"memory_mb":2}}
      """
    Then it is refused as "memory_exceeded"

  Scenario Outline: Too much output: <guest>
    Given the module "<guest>"
    When I send this invoke over HTTP
      """
      {"module":"<guest>"}
      """
    Then it is refused as "output_too_large"
    And "upper" still answers "HELLO" to "hello" over HTTP

    Examples:
      | guest        |
      | output-flood |
      | stdout-flood |

  Scenario: Too much input
    When I call "upper" with 11000000 bytes over HTTP
    Then it is refused as "payload_too_large"

  Scenario: A limit can only be lowered
    When I send this invoke over NATS
      """
      {"module":"upper","input":"hello","limits":{"timeout_ms":3600000}}
      """
    Then it is refused as "invalid_request"
    And the refusal names "timeout_ms"
