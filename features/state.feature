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
