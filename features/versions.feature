Feature: Versions and tags
  A new upload never takes an old version away from those who named it.

  Scenario: Two versions and a tag
    Given the guest "upper" is stored as "text"
    And the guest "in-place" is stored as "text"
    When I call "text" with "hello" over NATS
    Then the answer is "olleh"
    When I call "text@1" with "hello" over HTTP
    Then the answer is "HELLO"
    When I tag version 1 of "text" as "stable"
    Then its tag "stable" is version 1
    And its tag "latest" is version 2
    When I call "text@stable" with "hello" over HTTP
    Then the answer is "HELLO"

  Scenario: The same bytes make no new version
    Given the guest "upper" is stored as "same"
    When I store the guest "upper" as "same" over NATS
    Then it has version 1

  Scenario Outline: What a module is, over <door>
    Given the module "math"
    When I describe "math" over <door>
    Then its ABI is "typed"
    And it exports "divmod" with ["i64","i64"] giving ["i64","i64"]
    When I list the modules over <door>
    Then the list has "math"

    Examples:
      | door |
      | NATS |
      | HTTP |

  Scenario: A tag protects its version, and the module goes when I say so
    Given the guest "upper" is stored as "brief"
    And the guest "in-place" is stored as "brief"
    When I tag version 1 of "brief" as "keep"
    And I delete "brief@1"
    Then it is refused as "conflict"
    When I delete "brief"
    And I call "brief" with "hello" over NATS
    Then it is refused as "module_not_found"
    When I call "brief" with "hello" over HTTP
    Then it is refused as "module_not_found"
