Feature: Mistakes get an answer that says what is wrong

  Scenario Outline: <what> is no module, over <door>
    When I store <what> as "broken" over <door>
    Then it is refused as "invalid_module"

    Examples:
      | what          | door |
      | text          | NATS |
      | text          | HTTP |
      | nothing       | HTTP |
      | gzip          | NATS |
      | half a module | HTTP |
      | another magic | NATS |

  Scenario Outline: A module or function that is not there, over <door>
    Given the module "add"
    When I send this invoke over <door>
      """
      {"module":"nobody-home","input":"hello"}
      """
    Then it is refused as "module_not_found"
    And the refusal names "nobody-home"
    When I send this invoke over <door>
      """
      {"module":"add","function":"subtract","args":[2,3]}
      """
    Then it is refused as "function_not_found"
    And the refusal names "subtract"

    Examples:
      | door |
      | NATS |
      | HTTP |

  Scenario Outline: Arguments that do not fit: <args>
    Given the module "add"
    When I send this invoke over NATS
      """
      {"module":"add","args":<args>}
      """
    Then it is refused as "invalid_arguments"

    Examples:
      | args             |
      | [2]              |
      | [2,3,4]          |
      | ["two",3]        |
      | [2.5,3]          |
      | [4294967296,3]   |

  Scenario Outline: A request that is not one, over <door>
    When I send this invoke over <door>
      """
      {"module":
      """
    Then it is refused as "invalid_request"
    When I send this invoke over <door>
      """
      {"module":"add","colour":"red"}
      """
    Then it is refused as "invalid_request"
    And the refusal names "colour"

    Examples:
      | door |
      | NATS |
      | HTTP |

  Scenario Outline: A trap is told, and harms nobody: <function>
    Given the module "traps"
    And the module "upper"
    When I send this invoke over HTTP
      """
      {"module":"traps","function":"<function>"}
      """
    Then it is refused as "guest_trapped"
    And "upper" still answers "HELLO" to "hello" over HTTP

    Examples:
      | function           |
      | unreachable        |
      | divide_by_zero     |
      | load_out_of_bounds |
      | bad_signature      |
      | stack_overflow     |

  Scenario: Something we don't offer is named when the module is stored
    When I run wess store wants-too-much guests/hostile/unknown_import.wat
    Then it fails and says "launch_missiles"
