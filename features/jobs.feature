Feature: Durable jobs
  What was accepted ends, once, and can be asked about by its id until long after.

  Scenario Outline: Submit over <door>, wait, ask again
    Given the module "upper"
    When I submit this job over <door>
      """
      {"job_id":"hello-<door>","invoke":{"module":"upper","input":"hello"}}
      """
    Then the job is accepted
    When I wait for the job over <door>
    Then the job has succeeded
    And its output is "HELLO"
    And its guest has ended 1 time
    When I ask for the job over <door>
    Then the job has succeeded
    And its output is "HELLO"

    Examples:
      | door |
      | NATS |
      | HTTP |
      | CLI  |

  Scenario Outline: A chain over <door>
    Given the module "upper"
    And the module "in-place"
    When I submit this job over <door>
      """
      {"chain":{"steps":["upper","in-place"],"input":"hello"}}
      """
    And I wait for the job over <door>
    Then the job has succeeded
    And its output is "OLLEH"

    Examples:
      | door |
      | NATS |
      | HTTP |
      | CLI  |

  Scenario Outline: A store over <door>
    When I submit a job over <door> that stores the guest "upper" as "<name>"
    And I wait for the job over <door>
    Then the job has succeeded
    When I call "<name>" with "hello" over NATS
    Then the answer is "HELLO"

    Examples:
      | door | name            |
      | NATS | job-stored-nats |
      | HTTP | job-stored-http |
      | CLI  | job-stored-cli  |

  Scenario Outline: The same key over <door> is the same job, and another body a conflict
    Given the module "upper"
    When I submit this job over <door>
      """
      {"job_id":"once-<door>","invoke":{"module":"upper","input":"first"}}
      """
    And I wait for the job over <door>
    And I submit this job over <door>
      """
      {"job_id":"once-<door>","invoke":{"module":"upper","input":"first"}}
      """
    Then the job is accepted
    And the job has succeeded
    And its output is "FIRST"
    When I submit this job over <door>
      """
      {"job_id":"once-<door>","invoke":{"module":"upper","input":"second"}}
      """
    Then it is refused as "conflict"

    Examples:
      | door |
      | NATS |
      | HTTP |
      | CLI  |

  Scenario Outline: A key may stand in a header over <door>
    Given the module "upper"
    When I submit this job under the key "header-<door>" over <door>
      """
      {"invoke":{"module":"upper","input":"hello"}}
      """
    Then the job is accepted
    And its id is "header-<door>"

    Examples:
      | door |
      | NATS |
      | HTTP |

  Scenario Outline: What could not run is refused at once: <what>
    Given the module "add"
    When I submit this job over <door>
      """
      <job>
      """
    Then it is refused as "<code>"
    And the refusal names "<named>"

    Examples:
      | what             | door | code               | named    | job                                                                             |
      | no such module   | NATS | module_not_found   | nobody   | {"invoke":{"module":"nobody","input":"x"}}                                      |
      | no such module   | HTTP | module_not_found   | nobody   | {"invoke":{"module":"nobody","input":"x"}}                                      |
      | no such module   | CLI  | module_not_found   | nobody   | {"invoke":{"module":"nobody","input":"x"}}                                      |
      | no such function | HTTP | function_not_found | subtract | {"invoke":{"module":"add","function":"subtract","args":[1,2]}}                  |
      | bad arguments    | NATS | invalid_arguments  | 2        | {"invoke":{"module":"add","args":[1]}}                                          |
      | a late step      | HTTP | module_not_found   | nobody   | {"chain":{"steps":["add","nobody"],"input":[1,2]}}                              |
      | nothing to do    | NATS | invalid_request    | invoke   | {}                                                                              |
      | a slot's wait    | HTTP | invalid_request    | wait_ms  | {"invoke":{"module":"add","args":[1,2],"wait_ms":1}}                            |
      | our own subject  | NATS | invalid_request    | reply_to | {"invoke":{"module":"add","args":[1,2]},"reply_to":"wess.invoke"}               |
      | a record's key   | HTTP | invalid_request    | reply_to | {"invoke":{"module":"add","args":[1,2]},"reply_to":"$KV.wess-modules.default.a"} |
      | no webhooks      | HTTP | unsupported        | webhook  | {"invoke":{"module":"add","args":[1,2]},"webhook":"https://example.com/"}       |

  Scenario Outline: A guest that fails is the job's outcome, over <door>
    Given the module "traps"
    When I submit this job over <door>
      """
      {"invoke":{"module":"traps","function":"unreachable"}}
      """
    And I wait for the job over <door>
    Then the job has failed with "guest_trapped"
    And its guest has ended 1 time
    When I ask for its dead letter over <door>
    Then it is refused as "job_not_found"

    Examples:
      | door |
      | NATS |
      | HTTP |
      | CLI  |

  Scenario Outline: Who may try again does, then rests among the dead, and lives again when it is mended: over <door>
    Given the guest "alloc-traps" is stored as "<name>"
    When I submit this job over <door>
      """
      {"job_id":"<name>","invoke":{"module":"<name>","input":"hello"},"retry":{"max_attempts":3,"backoff_ms":[20,10]}}
      """
    And I wait for the job over <door>
    Then the job is dead with "guest_trapped"
    And its guest has ended 3 times
    When I ask for its dead letter over <door>
    Then the letter's reason is "attempts_exhausted"
    When I list the dead letters over <door>
    Then the dead letters have the job
    Given the guest "upper" is stored as "<name>"
    When I redrive the job over <door>
    And I wait for the job over <door>
    Then the job has succeeded
    And its output is "HELLO"
    When I ask for its dead letter over <door>
    Then it is refused as "job_not_found"

    Examples:
      | door | name       |
      | NATS | mends-nats |
      | HTTP | mends-http |
      | CLI  | mends-cli  |

  Scenario Outline: A dead letter is thrown away over <door>
    Given the module "traps"
    When I submit this job over <door>
      """
      {"invoke":{"module":"traps","function":"unreachable"},"retry":{"max_attempts":2,"backoff_ms":[10]}}
      """
    And I wait for the job over <door>
    Then the job is dead with "guest_trapped"
    When I purge its dead letter over <door>
    And I ask for its dead letter over <door>
    Then it is refused as "job_not_found"

    Examples:
      | door |
      | NATS |
      | HTTP |
      | CLI  |

  Scenario Outline: A job that waits can be cancelled over <door>, one that has ended stays as it is
    Given the module "upper"
    When I submit this job over <door>
      """
      {"invoke":{"module":"upper","input":"never"},"delay_ms":3600000}
      """
    And I cancel the job over <door>
    Then the job has been cancelled
    When I wait for the job over <door>
    Then the job has been cancelled
    When I submit this job over <door>
      """
      {"invoke":{"module":"upper","input":"hello"}}
      """
    And I wait for the job over <door>
    And I cancel the job over <door>
    Then the job has succeeded

    Examples:
      | door |
      | NATS |
      | HTTP |
      | CLI  |

  Scenario Outline: Nobody has a job that was never submitted, over <door>
    When I ask for the job "never-submitted" over <door>
    Then it is refused as "job_not_found"
    When I cancel the job over <door>
    Then it is refused as "job_not_found"

    Examples:
      | door |
      | NATS |
      | HTTP |
      | CLI  |

  Scenario Outline: Jobs are listed in pages, by what is asked for, over <door>
    Given the guest "upper" is stored as "<name>"
    When I submit 3 jobs for "<name>" over <door>
    And I wait for each of them
    And I list 2 jobs for "<name>" over <door>
    Then the list has the first 2 of them and goes on
    When I list the next jobs for "<name>" over <door>
    Then the list has the last of them and ends

    Examples:
      | door | name        |
      | NATS | listed-nats |
      | HTTP | listed-http |
      | CLI  | listed-cli  |

  Scenario Outline: A delayed job waits for its time, over <door>
    Given the module "upper"
    When I submit this job over <door>
      """
      {"invoke":{"module":"upper","input":"later"},"delay_ms":1500}
      """
    Then the job is queued and has a time
    When I wait for the job over <door>
    Then the job has succeeded
    And it did not start before its time

    Examples:
      | door |
      | NATS |
      | HTTP |

  Scenario: A schedule makes one job after the other until it is cancelled
    Given the module "upper"
    And I tail "wess.done.*"
    When I submit this job over NATS
      """
      {"job_id":"ticks","invoke":{"module":"upper","input":"tick"},"cron":"@every 1s"}
      """
    Then the tail shows 2 jobs of the schedule "ticks" that have succeeded
    When I cancel the job over NATS
    Then the job has been cancelled

  Scenario: The end of a job is told to those who asked, and to those who listen
    Given the module "upper"
    And I tail "reports.done"
    When I submit this job over HTTP
      """
      {"job_id":"told","invoke":{"module":"upper","input":"hello"},"reply_to":"reports.done"}
      """
    Then the tail shows that the job has succeeded
    Given I tail "wess.done.heard"
    When I submit this job over HTTP
      """
      {"job_id":"heard","invoke":{"module":"upper","input":"hello"}}
      """
    Then the tail shows that the job has succeeded

  Scenario: Large inputs and outputs over HTTP
    Given the module "upper"
    When I submit a job over HTTP for "upper" with 3000000 bytes
    And I wait for the job over HTTP
    Then the job has succeeded
    And its output has 3000000 bytes

  Scenario: Large inputs and outputs over NATS, by the command line
    Given the module "upper"
    When I pipe 3000000 bytes into wess jobs submit upper - --wait
    Then it prints 3000000 bytes

  Scenario: As a person does it
    Given the module "upper"
    And the module "traps"
    When I run wess jobs submit upper hello --key by-hand
    Then it prints "by-hand"
    When I run wess jobs wait by-hand
    Then it prints "HELLO"
    When I run wess jobs get by-hand
    Then it prints something with "succeeded"
    When I run wess jobs ls --state succeeded --all
    Then it prints something with "by-hand"
    When I run wess jobs submit --chain upper upper --input hello --wait
    Then it prints "HELLO"
    When I run wess jobs submit traps.unreachable --retry 2 --backoff 10ms --key by-hand-dead --wait
    Then it fails and says "guest_trapped"
    When I run wess dead ls
    Then it prints something with "attempts_exhausted"
    When I run wess dead get by-hand-dead
    Then it prints something with "traps"
    When I run wess dead purge by-hand-dead
    Then it prints "removed 1"
