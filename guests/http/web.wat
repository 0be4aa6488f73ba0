;; A component that serves HTTP requests (wasi:http/incoming-handler), well or badly: the first letter of the path says how.
;;
;;   /hello       "hello from wess"                    /trap    a head and some of a body, then a trap
;;   /path?query  the path as the guest sees it        /done    a whole response, then a trap
;;   /echo        headers, body and trailers back      /under   a trap at once
;;   /big         50 000 000 bytes                     /never   ends without a response
;;   /xempty      204 and no body                      /loop    never ends
;;   /ward        status 400 + the error of an         /short   5 bytes of the 100 that it announced
;;                outward request                      /over    5 bytes of the 3 that it announced
;;   /refuse      an error instead of a response       /flood   more headers than it may
;;   /kdrop       a body that is dropped, not finished /quiet   a head, then nothing until its time is up
;;   /inform      a head with the status 103           /late    a head and some of a body, a wait, then a trap
;;   /cached      304, and a body all the same         /memory  all the memory that it gets, then a trap
;;   /gather      headers that it never gives back
;;
;; The imports are the parts of wasi:io and wasi:http that it uses, as a toolchain would make them from WIT.
(component $web
  (import "wasi:io/poll@0.2.0" (instance $poll
    (export "pollable" (type $pollable (sub resource)))
    (export "[method]pollable.block" (func (param "self" (borrow $pollable))))))
  (alias export $poll "pollable" (type $pollable))
  (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
    (alias outer $web $pollable (type $pollable))
    (export "subscribe-duration" (func (param "when" u64) (result (own $pollable))))))
  (import "wasi:io/error@0.2.0" (instance $error (export "error" (type (sub resource)))))
  (alias export $error "error" (type $io-error))
  (import "wasi:io/streams@0.2.0" (instance $streams
    (export "input-stream" (type $input (sub resource)))
    (export "output-stream" (type $output (sub resource)))
    (alias outer $web $io-error (type $io-error))
    (type $failed (variant (case "last-operation-failed" (own $io-error)) (case "closed")))
    (export "stream-error" (type $stream-error (eq $failed)))
    (export "[method]output-stream.blocking-write-and-flush"
      (func (param "self" (borrow $output)) (param "contents" (list u8)) (result (result (error $stream-error)))))
    (export "[method]output-stream.blocking-splice"
      (func (param "self" (borrow $output)) (param "src" (borrow $input)) (param "len" u64)
        (result (result u64 (error $stream-error)))))))
  (alias export $streams "input-stream" (type $input))
  (alias export $streams "output-stream" (type $output))
  (import "wasi:http/types@0.2.0" (instance $types
    (alias outer $web $pollable (type $pollable))
    (alias outer $web $input (type $input))
    (alias outer $web $output (type $output))
    (export "fields" (type $fields (sub resource)))
    (export "incoming-request" (type $request (sub resource)))
    (export "incoming-body" (type $incoming-body (sub resource)))
    (export "future-trailers" (type $future-trailers (sub resource)))
    (export "outgoing-request" (type $outgoing-request (sub resource)))
    (export "request-options" (type $request-options (sub resource)))
    (export "future-incoming-response" (type $future-response (sub resource)))
    (export "outgoing-response" (type $response (sub resource)))
    (export "outgoing-body" (type $outgoing-body (sub resource)))
    (export "response-outparam" (type $outparam (sub resource)))
    (type $dns (record (field "rcode" (option string)) (field "info-code" (option u16))))
    (export "DNS-error-payload" (type $dns-error (eq $dns)))
    (type $tls (record (field "alert-id" (option u8)) (field "alert-message" (option string))))
    (export "TLS-alert-received-payload" (type $tls-alert (eq $tls)))
    (type $size (record (field "field-name" (option string)) (field "field-size" (option u32))))
    (export "field-size-payload" (type $field-size (eq $size)))
    (type $code (variant
      (case "DNS-timeout") (case "DNS-error" $dns-error) (case "destination-not-found")
      (case "destination-unavailable") (case "destination-IP-prohibited") (case "destination-IP-unroutable")
      (case "connection-refused") (case "connection-terminated") (case "connection-timeout")
      (case "connection-read-timeout") (case "connection-write-timeout") (case "connection-limit-reached")
      (case "TLS-protocol-error") (case "TLS-certificate-error") (case "TLS-alert-received" $tls-alert)
      (case "HTTP-request-denied") (case "HTTP-request-length-required") (case "HTTP-request-body-size" (option u64))
      (case "HTTP-request-method-invalid") (case "HTTP-request-URI-invalid") (case "HTTP-request-URI-too-long")
      (case "HTTP-request-header-section-size" (option u32)) (case "HTTP-request-header-size" (option $field-size))
      (case "HTTP-request-trailer-section-size" (option u32)) (case "HTTP-request-trailer-size" $field-size)
      (case "HTTP-response-incomplete") (case "HTTP-response-header-section-size" (option u32))
      (case "HTTP-response-header-size" $field-size) (case "HTTP-response-body-size" (option u64))
      (case "HTTP-response-trailer-section-size" (option u32)) (case "HTTP-response-trailer-size" $field-size)
      (case "HTTP-response-transfer-coding" (option string)) (case "HTTP-response-content-coding" (option string))
      (case "HTTP-response-timeout") (case "HTTP-upgrade-failed") (case "HTTP-protocol-error")
      (case "loop-detected") (case "configuration-error") (case "internal-error" (option string))))
    (export "error-code" (type $error-code (eq $code)))
    (type $bad-header (variant (case "invalid-syntax") (case "forbidden") (case "immutable")))
    (export "header-error" (type $header-error (eq $bad-header)))
    (export "[constructor]fields" (func (result (own $fields))))
    (export "[method]fields.append" (func (param "self" (borrow $fields)) (param "name" string)
      (param "value" (list u8)) (result (result (error $header-error)))))
    (export "[method]fields.clone" (func (param "self" (borrow $fields)) (result (own $fields))))
    (export "[method]incoming-request.path-with-query"
      (func (param "self" (borrow $request)) (result (option string))))
    (export "[method]incoming-request.headers" (func (param "self" (borrow $request)) (result (own $fields))))
    (export "[method]incoming-request.consume"
      (func (param "self" (borrow $request)) (result (result (own $incoming-body)))))
    (export "[method]incoming-body.stream"
      (func (param "self" (borrow $incoming-body)) (result (result (own $input)))))
    (export "[static]incoming-body.finish"
      (func (param "this" (own $incoming-body)) (result (own $future-trailers))))
    (export "[method]future-trailers.subscribe"
      (func (param "self" (borrow $future-trailers)) (result (own $pollable))))
    (export "[method]future-trailers.get" (func (param "self" (borrow $future-trailers))
      (result (option (result (result (option (own $fields)) (error $error-code)))))))
    (export "[constructor]outgoing-request"
      (func (param "headers" (own $fields)) (result (own $outgoing-request))))
    (export "[constructor]outgoing-response" (func (param "headers" (own $fields)) (result (own $response))))
    (export "[method]outgoing-response.set-status-code"
      (func (param "self" (borrow $response)) (param "status-code" u16) (result (result))))
    (export "[method]outgoing-response.body"
      (func (param "self" (borrow $response)) (result (result (own $outgoing-body)))))
    (export "[method]outgoing-body.write"
      (func (param "self" (borrow $outgoing-body)) (result (result (own $output)))))
    (export "[static]outgoing-body.finish" (func (param "this" (own $outgoing-body))
      (param "trailers" (option (own $fields))) (result (result (error $error-code)))))
    (export "[static]response-outparam.set" (func (param "param" (own $outparam))
      (param "response" (result (own $response) (error $error-code)))))))
  (alias export $types "incoming-request" (type $request))
  (alias export $types "response-outparam" (type $outparam))
  (alias export $types "outgoing-body" (type $outgoing-body))
  (alias export $types "outgoing-request" (type $outgoing-request))
  (alias export $types "request-options" (type $request-options))
  (alias export $types "future-incoming-response" (type $future-response))
  (alias export $types "error-code" (type $error-code))
  (import "wasi:http/outgoing-handler@0.2.0" (instance $outgoing
    (alias outer $web $outgoing-request (type $request))
    (alias outer $web $request-options (type $options))
    (alias outer $web $future-response (type $response))
    (alias outer $web $error-code (type $error-code))
    (export "handle" (func (param "request" (own $request)) (param "options" (option (own $options)))
      (result (result (own $response) (error $error-code)))))))

  ;; The memory comes first: what the imports give and take lies in it.
  (core module $memory
    (memory (export "memory") 1)
    (global $free (mut i32) (i32.const 16384))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
      (global.set $free (i32.add (local.get $at) (local.get 3)))
      (if (i32.gt_u (global.get $free) (i32.const 65536)) (then unreachable))
      (local.get $at)))
  (core instance $memory (instantiate $memory))
  (alias core export $memory "memory" (core memory $m))
  (alias core export $memory "realloc" (core func $r))

  (core func $block (canon lower (func $poll "[method]pollable.block")))
  (core func $alarm (canon lower (func $clock "subscribe-duration")))
  (core func $write (canon lower (func $streams "[method]output-stream.blocking-write-and-flush") (memory $m)))
  (core func $splice (canon lower (func $streams "[method]output-stream.blocking-splice") (memory $m)))
  (core func $fields (canon lower (func $types "[constructor]fields")))
  (core func $append (canon lower (func $types "[method]fields.append") (memory $m)))
  (core func $clone (canon lower (func $types "[method]fields.clone")))
  (core func $path (canon lower (func $types "[method]incoming-request.path-with-query") (memory $m) (realloc $r)))
  (core func $headers (canon lower (func $types "[method]incoming-request.headers")))
  (core func $consume (canon lower (func $types "[method]incoming-request.consume") (memory $m)))
  (core func $stream (canon lower (func $types "[method]incoming-body.stream") (memory $m)))
  (core func $ended (canon lower (func $types "[static]incoming-body.finish")))
  (core func $subscribe (canon lower (func $types "[method]future-trailers.subscribe")))
  (core func $trailers (canon lower (func $types "[method]future-trailers.get") (memory $m) (realloc $r)))
  (core func $outgoing-request (canon lower (func $types "[constructor]outgoing-request")))
  (core func $response (canon lower (func $types "[constructor]outgoing-response")))
  (core func $status (canon lower (func $types "[method]outgoing-response.set-status-code")))
  (core func $body (canon lower (func $types "[method]outgoing-response.body") (memory $m)))
  (core func $output (canon lower (func $types "[method]outgoing-body.write") (memory $m)))
  (core func $finish (canon lower (func $types "[static]outgoing-body.finish") (memory $m) (realloc $r)))
  (core func $set (canon lower (func $types "[static]response-outparam.set") (memory $m)))
  (core func $outward (canon lower (func $outgoing "handle") (memory $m) (realloc $r)))
  (core func $drop-input (canon resource.drop $input))
  (core func $drop-output (canon resource.drop $output))
  (core func $drop-body (canon resource.drop $outgoing-body))
  (core func $drop-pollable (canon resource.drop $pollable))

  (core module $code
    (import "host" "memory" (memory 1))
    (import "host" "block" (func $block (param i32)))
    (import "host" "alarm" (func $alarm (param i64) (result i32)))
    (import "host" "write" (func $write (param i32 i32 i32 i32)))
    (import "host" "splice" (func $splice (param i32 i32 i64 i32)))
    (import "host" "fields" (func $fields (result i32)))
    (import "host" "append" (func $append (param i32 i32 i32 i32 i32 i32)))
    (import "host" "clone" (func $clone (param i32) (result i32)))
    (import "host" "path" (func $path (param i32 i32)))
    (import "host" "headers" (func $headers (param i32) (result i32)))
    (import "host" "consume" (func $consume (param i32 i32)))
    (import "host" "stream" (func $stream (param i32 i32)))
    (import "host" "ended" (func $ended (param i32) (result i32)))
    (import "host" "subscribe" (func $subscribe (param i32) (result i32)))
    (import "host" "trailers" (func $trailers (param i32 i32)))
    (import "host" "outgoing-request" (func $outgoing-request (param i32) (result i32)))
    (import "host" "response" (func $response (param i32) (result i32)))
    (import "host" "status" (func $status (param i32 i32) (result i32)))
    (import "host" "body" (func $body (param i32 i32)))
    (import "host" "output" (func $output (param i32 i32)))
    (import "host" "finish" (func $finish (param i32 i32 i32 i32)))
    (import "host" "set" (func $set (param i32 i32 i32 i32 i64 i32 i32 i32 i32)))
    (import "host" "outward" (func $outward (param i32 i32 i32 i32)))
    (import "host" "drop-input" (func $drop-input (param i32)))
    (import "host" "drop-output" (func $drop-output (param i32)))
    (import "host" "drop-body" (func $drop-body (param i32)))
    (import "host" "drop-pollable" (func $drop-pollable (param i32)))
    ;; Below 1024 lie what the host gives back and our texts; at 8192 a chunk of zeros.
    (data (i32.const 512) "hello from wess\0acontent-length1003content-typetext/plain; charset=utf-8x-many")

    (global $outparam (mut i32) (i32.const 0))
    (global $outgoing (mut i32) (i32.const 0))
    (global $out (mut i32) (i32.const 0))

    ;; The handle in a result at 0; a trap if it is an error.
    (func $ok (result i32)
      (if (i32.load8_u (i32.const 0)) (then unreachable))
      (i32.load (i32.const 4)))

    ;; Sends a head with a body, whose stream is open then.
    (func $begin (param $status i32) (param $headers i32)
      (local $response i32)
      (local.set $response (call $response (local.get $headers)))
      (drop (call $status (local.get $response) (local.get $status)))
      (call $body (local.get $response) (i32.const 0))
      (global.set $outgoing (call $ok))
      (call $set (global.get $outparam) (i32.const 0) (local.get $response)
        (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
      (call $output (global.get $outgoing) (i32.const 0))
      (global.set $out (call $ok)))

    (func $say (param $at i32) (param $len i32)
      (call $write (global.get $out) (local.get $at) (local.get $len) (i32.const 0)))

    (func $end (param $has-trailers i32) (param $trailers i32)
      (call $drop-output (global.get $out))
      (call $finish (global.get $outgoing) (local.get $has-trailers) (local.get $trailers) (i32.const 0)))

    (func $text (result i32)
      (local $headers i32)
      (local.set $headers (call $fields))
      (call $append (local.get $headers) (i32.const 546) (i32.const 12) (i32.const 558) (i32.const 25) (i32.const 0))
      (local.get $headers))

    ;; Headers that announce a length, whose digits lie at $at.
    (func $announcing (param $at i32) (param $len i32) (result i32)
      (local $headers i32)
      (local.set $headers (call $fields))
      (call $append (local.get $headers) (i32.const 528) (i32.const 14) (local.get $at) (local.get $len) (i32.const 0))
      (local.get $headers))

    (func $hello
      (call $begin (i32.const 200) (call $text))
      (call $say (i32.const 512) (i32.const 16))
      (call $end (i32.const 0) (i32.const 0)))

    (func $echo (param $request i32)
      (local $body i32) (local $input i32) (local $trailers i32) (local $ready i32)
      (call $consume (local.get $request) (i32.const 0))
      (local.set $body (call $ok))
      (call $stream (local.get $body) (i32.const 0))
      (local.set $input (call $ok))
      (call $begin (i32.const 200) (call $clone (call $headers (local.get $request))))
      (loop $more
        (call $splice (global.get $out) (local.get $input) (i64.const 65536) (i32.const 0))
        (br_if $more (i32.eqz (i32.load8_u (i32.const 0)))))
      ;; Whatever failed but an end is not passed over.
      (if (i32.eqz (i32.load8_u (i32.const 8))) (then unreachable))
      (call $drop-input (local.get $input))
      (local.set $trailers (call $ended (local.get $body)))
      (local.set $ready (call $subscribe (local.get $trailers)))
      (call $block (local.get $ready))
      (call $drop-pollable (local.get $ready))
      (call $trailers (local.get $trailers) (i32.const 0))
      (if (i32.or (i32.load8_u (i32.const 8)) (i32.load8_u (i32.const 16))) (then unreachable))
      (call $end (i32.load8_u (i32.const 24)) (i32.load (i32.const 28))))

    (func $big
      (local $left i32)
      (call $begin (i32.const 200) (call $fields))
      (local.set $left (i32.const 12500))
      (loop $more
        (call $say (i32.const 8192) (i32.const 4000))
        (if (i32.load8_u (i32.const 0)) (then unreachable))
        (local.set $left (i32.sub (local.get $left) (i32.const 1)))
        (br_if $more (local.get $left)))
      (call $end (i32.const 0) (i32.const 0)))

    (func $ward
      (call $outward (call $outgoing-request (call $fields)) (i32.const 0) (i32.const 0) (i32.const 0))
      (if (i32.eqz (i32.load8_u (i32.const 0))) (then unreachable))
      (call $begin (i32.add (i32.const 400) (i32.load8_u (i32.const 8))) (call $fields))
      (call $end (i32.const 0) (i32.const 0)))

    (func $empty
      (local $response i32)
      (local.set $response (call $response (call $fields)))
      (drop (call $status (local.get $response) (i32.const 204)))
      (call $set (global.get $outparam) (i32.const 0) (local.get $response)
        (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))

    (func $flood
      (local $headers i32)
      (local.set $headers (call $fields))
      (loop $more
        (call $append (local.get $headers) (i32.const 583) (i32.const 6) (i32.const 512) (i32.const 5) (i32.const 0))
        (br_if $more (i32.eqz (i32.load8_u (i32.const 0)))))
      (unreachable))

    (func $late
      (call $begin (i32.const 200) (call $fields))
      (call $say (i32.const 512) (i32.const 5))
      ;; A tenth of a second, in nanoseconds.
      (call $block (call $alarm (i64.const 100000000)))
      (unreachable))

    (func $memory
      (loop $more (br_if $more (i32.ne (i32.const -1) (memory.grow (i32.const 16)))))
      (unreachable))

    (func (export "handle") (param $request i32) (param $outparam i32)
      (local $letter i32)
      (global.set $outparam (local.get $outparam))
      (call $path (local.get $request) (i32.const 0))
      (if (i32.lt_u (i32.load (i32.const 8)) (i32.const 2)) (then (return (call $hello))))
      (local.set $letter (i32.load8_u offset=1 (i32.load (i32.const 4))))
      (if (i32.eq (local.get $letter) (i32.const 0x65 (; e ;))) (then (return (call $echo (local.get $request)))))
      (if (i32.eq (local.get $letter) (i32.const 0x62 (; b ;))) (then (return (call $big))))
      (if (i32.eq (local.get $letter) (i32.const 0x78 (; x ;))) (then (return (call $empty))))
      (if (i32.eq (local.get $letter) (i32.const 0x77 (; w ;))) (then (return (call $ward))))
      (if (i32.eq (local.get $letter) (i32.const 0x66 (; f ;))) (then (return (call $flood))))
      (if (i32.eq (local.get $letter) (i32.const 0x6e (; n ;))) (then (return)))
      (if (i32.eq (local.get $letter) (i32.const 0x75 (; u ;))) (then unreachable))
      (if (i32.eq (local.get $letter) (i32.const 0x6d (; m ;))) (then (return (call $memory))))
      (if (i32.eq (local.get $letter) (i32.const 0x67 (; g ;)))
        (then (loop $more (drop (call $fields)) (br $more))))
      (if (i32.eq (local.get $letter) (i32.const 0x6c (; l ;)))
        (then
          (if (i32.eq (i32.load8_u offset=2 (i32.load (i32.const 4))) (i32.const 0x61 (; a ;)))
            (then (return (call $late))))
          (loop $for-ever (br $for-ever))))
      (if (i32.or
          (i32.eq (local.get $letter) (i32.const 0x69 (; i ;)))
          (i32.eq (local.get $letter) (i32.const 0x63 (; c ;))))
        (then
          (call $begin
            (select (i32.const 103) (i32.const 304) (i32.eq (local.get $letter) (i32.const 0x69)))
            (call $text))
          (call $say (i32.const 512) (i32.const 16))
          (return (call $end (i32.const 0) (i32.const 0)))))
      (if (i32.eq (local.get $letter) (i32.const 0x70 (; p ;)))
        (then
          (local.set $letter (i32.load (i32.const 8)))
          (local.set $request (i32.load (i32.const 4)))
          (call $begin (i32.const 200) (call $text))
          (call $say (local.get $request) (local.get $letter))
          (return (call $end (i32.const 0) (i32.const 0)))))
      (if (i32.eq (local.get $letter) (i32.const 0x72 (; r ;)))
        (then
          (return
            (call $set (global.get $outparam) (i32.const 1) (i32.const 38)
              (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))))
      (if (i32.eq (local.get $letter) (i32.const 0x73 (; s ;)))
        (then
          (call $begin (i32.const 200) (call $announcing (i32.const 542) (i32.const 3)))
          (call $say (i32.const 512) (i32.const 5))
          (return (call $end (i32.const 0) (i32.const 0)))))
      (if (i32.eq (local.get $letter) (i32.const 0x6f (; o ;)))
        (then
          (call $begin (i32.const 200) (call $announcing (i32.const 545) (i32.const 1)))
          (call $say (i32.const 512) (i32.const 5))
          (return (call $end (i32.const 0) (i32.const 0)))))
      (if (i32.eq (local.get $letter) (i32.const 0x74 (; t ;)))
        (then
          (call $begin (i32.const 200) (call $fields))
          (call $say (i32.const 512) (i32.const 5))
          (unreachable)))
      (if (i32.eq (local.get $letter) (i32.const 0x64 (; d ;)))
        (then
          (call $begin (i32.const 200) (call $announcing (i32.const 545) (i32.const 1)))
          (call $say (i32.const 512) (i32.const 3))
          (call $end (i32.const 0) (i32.const 0))
          (unreachable)))
      (if (i32.eq (local.get $letter) (i32.const 0x6b (; k ;)))
        (then
          (call $begin (i32.const 200) (call $fields))
          (call $say (i32.const 512) (i32.const 5))
          (call $drop-output (global.get $out))
          (return (call $drop-body (global.get $outgoing)))))
      (if (i32.eq (local.get $letter) (i32.const 0x71 (; q ;)))
        (then
          (call $begin (i32.const 200) (call $fields))
          (call $say (i32.const 512) (i32.const 5))
          (loop $for-ever (br $for-ever))))
      (call $hello)))

  (core instance $code (instantiate $code
    (with "host" (instance
      (export "memory" (memory $m))
      (export "block" (func $block))
      (export "alarm" (func $alarm))
      (export "write" (func $write))
      (export "splice" (func $splice))
      (export "fields" (func $fields))
      (export "append" (func $append))
      (export "clone" (func $clone))
      (export "path" (func $path))
      (export "headers" (func $headers))
      (export "consume" (func $consume))
      (export "stream" (func $stream))
      (export "ended" (func $ended))
      (export "subscribe" (func $subscribe))
      (export "trailers" (func $trailers))
      (export "outgoing-request" (func $outgoing-request))
      (export "response" (func $response))
      (export "status" (func $status))
      (export "body" (func $body))
      (export "output" (func $output))
      (export "finish" (func $finish))
      (export "set" (func $set))
      (export "outward" (func $outward))
      (export "drop-input" (func $drop-input))
      (export "drop-output" (func $drop-output))
      (export "drop-body" (func $drop-body))
      (export "drop-pollable" (func $drop-pollable))))))

  (func $handle (param "request" (own $request)) (param "response-out" (own $outparam))
    (canon lift (core func $code "handle")))
  (instance $handler (export "handle" (func $handle)))
  (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))
