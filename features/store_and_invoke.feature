Feature: Store a module, then call it
  Whatever I wrote it in and whichever way I come in, a module that I stored answers.

  Scenario Outline: A plugin over <door>
    When I store the guest "upper" as "<name>" over <door>
    Then its ABI is "plugin"
    When I call "<name>" with "hello" over <door>
    Then the answer is "HELLO"

    Examples:
      | door | name        |
      | NATS | shout-nats  |
      | HTTP | shout-http  |

  Scenario Outline: A command over <door>
    Given the module "wordcount"
    When I call "wordcount" with "hello big world" over <door>
    Then the answer is "0 3 15"

    Examples:
      | door |
      | NATS |
      | HTTP |

  Scenario Outline: A typed function over <door>
    Given the module "add"
    When I send this invoke over <door>
      """
      {"module":"add","args":[2,3]}
      """
    Then the results are [5]

    Examples:
      | door |
      | NATS |
      | HTTP |

  Scenario: A typed function by raw bytes
    Given the module "math"
    When I call "math.divmod" with "[17,5]" over NATS
    Then the answer is "[3,2]"

  Scenario: Numbers that JSON cannot hold travel as text
    Given the module "math"
    When I send this invoke over NATS
      """
      {"module":"math","function":"echo_i64","args":["9223372036854775807"]}
      """
    Then the results are ["9223372036854775807"]
    When I send this invoke over HTTP
      """
      {"module":"math","function":"div_f64","args":[1,0]}
      """
    Then the results are ["Infinity"]

  Scenario: Arguments, environment and exit code of a command
    Given the module "cat"
    When I send this invoke over HTTP
      """
      {"module":"cat","args":["-e","CITY","-x","7"],"env":{"CITY":"Bergen"},"input":"fish"}
      """
    Then the output is "CITY=Bergen\nfish"
    And the exit code is 7

  Scenario: A guest's own failure is its answer
    Given the module "greet"
    When I send this invoke over NATS
      """
      {"module":"greet"}
      """
    Then the output is "whom shall I greet?"
    And the exit code is 1

  Scenario: A hundred callers at once
    Given the module "upper"
    When 100 callers call "upper" at once
    Then every caller gets its own words in upper case

  Scenario Outline: Large input and output over HTTP
    Given the module "upper"
    When I call "upper" with <size> bytes over HTTP
    Then the answer has <size> bytes

    Examples:
      | size    |
      | 100000  |
      | 5000000 |

  Scenario: What was stored can be fetched again
    When I store the guest "counter" as "fetch-me" over HTTP
    And I download "fetch-me"
    Then the bytes are those of the guest "counter"
