Feature: HTTP
  A module that serves HTTP is a web server without a server.

  Scenario Outline: A request has its response over <door>
    Given the module "web"
    When I send an HTTP request for "<path>" to "web" over <door>
    Then the answer is "<text>"

    Examples:
      | door | path        | text            |
      | HTTP | /hello      | hello from wess |
      | NATS | /hello      | hello from wess |
      | HTTP | /path?a=b   | /path?a=b       |
      | NATS | /path?a=b   | /path?a=b       |

  Scenario Outline: What is sent comes back over <door>
    Given the module "web"
    When I post "some words" for "/echo" to "web" over <door>
    Then the answer is "some words"

    Examples:
      | door |
      | HTTP |
      | NATS |

  Scenario Outline: A guest without a response is refused by its code over <door>
    Given the module "web"
    When I send an HTTP request for "/never" to "web" over <door>
    Then it is refused as "guest_trapped"

    Examples:
      | door |
      | HTTP |
      | NATS |
