Feature: State that outlives a call

  Scenario: A counter counts, whichever way it is called
    Given the guest "counter" is stored as "visits"
    When I call "visits" with nothing over NATS
    Then the answer is "1"
    When I call "visits" with nothing over HTTP
    Then the answer is "2"
    When I call "visits" with "reset" over NATS
    And I call "visits" with nothing over HTTP
    Then the answer is "1"

  Scenario: A module's state is its own
    Given the guest "counter" is stored as "mine"
    And the guest "counter" is stored as "yours"
    When I call "mine" with nothing over NATS
    And I call "mine" with nothing over NATS
    And I call "yours" with nothing over NATS
    Then the answer is "1"

  Scenario Outline: A call with a key is made once, however often it is sent over <door>
    Given the guest "counter" is stored as "<name>"
    When I call "<name>" over <door> with the header <header>: visit-1-<name>
    And I call "<name>" over <door> with the header <header>: visit-1-<name>
    Then the answer is "1"
    When I call "<name>" over <door> with the header <header>: visit-2-<name>
    Then the answer is "2"

    Examples:
      | door | name      | header          |
      | NATS | once-nats | Nats-Msg-Id     |
      | HTTP | once-http | Idempotency-Key |
