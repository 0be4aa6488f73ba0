;; A component that answers with what it is given of the world, once it has waited: bytes and a number by chance, the same by
;; cheaper chance, two numbers to seed a map with, the time of day and what it counts in, the monotonic clock and what it
;; counts in, and the monotonic clock after the wait. It says all but the last in its log before it waits.
(component
  (import "wasi:io/poll@0.2.0" (instance $poll
    (export "pollable" (type $pollable (sub resource)))
    (export "[method]pollable.block" (func (param "self" (borrow $pollable))))))
  (alias export $poll "pollable" (type $pollable))
  (import "wasi:random/random@0.2.0" (instance $random
    (export "get-random-bytes" (func (param "len" u64) (result (list u8))))
    (export "get-random-u64" (func (result u64)))))
  (import "wasi:random/insecure@0.2.0" (instance $insecure
    (export "get-insecure-random-bytes" (func (param "len" u64) (result (list u8))))
    (export "get-insecure-random-u64" (func (result u64)))))
  (import "wasi:random/insecure-seed@0.2.0" (instance $seed
    (export "insecure-seed" (func (result (tuple u64 u64))))))
  (import "wasi:clocks/wall-clock@0.2.0" (instance $wall
    (type $time (record (field "seconds" u64) (field "nanoseconds" u32)))
    (export "datetime" (type $datetime (eq $time)))
    (export "now" (func (result $datetime)))
    (export "resolution" (func (result $datetime)))))
  (import "wasi:clocks/monotonic-clock@0.2.0" (instance $monotonic
    (alias outer 1 $pollable (type $pollable'))
    (export "now" (func (result u64)))
    (export "resolution" (func (result u64)))
    (export "subscribe-duration" (func (param "when" u64) (result (own $pollable'))))))
  (import "wasi:logging/logging@0.1.0-draft" (instance $logging
    (type $level' (enum "trace" "debug" "info" "warn" "error" "critical"))
    (export "level" (type $level (eq $level')))
    (export "log" (func (param "level" $level) (param "context" string) (param "message" string)))))

  ;; Two lists are made, one behind the other.
  (core module $room
    (memory (export "memory") 1)
    (global $free (mut i32) (i32.const 8192))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (local $at i32)
      (local.set $at (global.get $free))
      (global.set $free (i32.add (local.get $at) (local.get 3)))
      (local.get $at)))
  (core instance $room (instantiate $room))
  (alias core export $room "memory" (core memory $memory))
  (alias core export $room "realloc" (core func $realloc))

  (core func $block (canon lower (func $poll "[method]pollable.block")))
  (core func $drop-pollable (canon resource.drop $pollable))
  (core func $bytes (canon lower (func $random "get-random-bytes") (memory $memory) (realloc $realloc)))
  (core func $number (canon lower (func $random "get-random-u64")))
  (core func $cheap-bytes
    (canon lower (func $insecure "get-insecure-random-bytes") (memory $memory) (realloc $realloc)))
  (core func $cheap-number (canon lower (func $insecure "get-insecure-random-u64")))
  (core func $seed (canon lower (func $seed "insecure-seed") (memory $memory)))
  (core func $time (canon lower (func $wall "now") (memory $memory)))
  (core func $time-step (canon lower (func $wall "resolution") (memory $memory)))
  (core func $now (canon lower (func $monotonic "now")))
  (core func $step (canon lower (func $monotonic "resolution")))
  (core func $after (canon lower (func $monotonic "subscribe-duration")))
  (core func $log (canon lower (func $logging "log") (memory $memory)))

  (core module $code
    (import "host" "memory" (memory 1))
    (import "host" "block" (func $block (param i32)))
    (import "host" "drop-pollable" (func $drop-pollable (param i32)))
    (import "host" "bytes" (func $bytes (param i64 i32)))
    (import "host" "number" (func $number (result i64)))
    (import "host" "cheap-bytes" (func $cheap-bytes (param i64 i32)))
    (import "host" "cheap-number" (func $cheap-number (result i64)))
    (import "host" "seed" (func $seed (param i32)))
    (import "host" "time" (func $time (param i32)))
    (import "host" "time-step" (func $time-step (param i32)))
    (import "host" "now" (func $now (result i64)))
    (import "host" "step" (func $step (result i64)))
    (import "host" "after" (func $after (param i64) (result i32)))
    (import "host" "log" (func $log (param i32 i32 i32 i32 i32)))
    ;; Where the answer's list is said to be.
    (data (i32.const 512) "\00\04\00\00\98\00\00\00")

    ;; Writes what lies from 1024 up to 1168 into the log, each byte as two letters from a to p.
    (func $say
      (local $at i32)
      (loop $more
        (i32.store8 (i32.add (i32.const 2048) (i32.shl (local.get $at) (i32.const 1)))
          (i32.add (i32.const 97)
            (i32.shr_u (i32.load8_u (i32.add (i32.const 1024) (local.get $at))) (i32.const 4))))
        (i32.store8 (i32.add (i32.const 2049) (i32.shl (local.get $at) (i32.const 1)))
          (i32.add (i32.const 97)
            (i32.and (i32.load8_u (i32.add (i32.const 1024) (local.get $at))) (i32.const 15))))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br_if $more (i32.lt_u (local.get $at) (i32.const 144))))
      (call $log (i32.const 2) (i32.const 0) (i32.const 0) (i32.const 2048) (i32.const 288)))

    (func (export "see") (param $wait-ms i64) (result i32)
      (local $ready i32)
      (call $bytes (i64.const 32) (i32.const 0))
      (memory.copy (i32.const 1024) (i32.load (i32.const 0)) (i32.const 32))
      (i64.store (i32.const 1056) (call $number))
      (call $cheap-bytes (i64.const 32) (i32.const 0))
      (memory.copy (i32.const 1064) (i32.load (i32.const 0)) (i32.const 32))
      (i64.store (i32.const 1096) (call $cheap-number))
      (call $seed (i32.const 1104))
      (call $time (i32.const 1120))
      (call $time-step (i32.const 1136))
      (i64.store (i32.const 1152) (call $now))
      (i64.store (i32.const 1160) (call $step))
      (call $say)
      (local.set $ready (call $after (i64.mul (local.get $wait-ms) (i64.const 1000000))))
      (call $block (local.get $ready))
      (call $drop-pollable (local.get $ready))
      (i64.store (i32.const 1168) (call $now))
      (i32.const 512)))

  (core instance $code (instantiate $code
    (with "host" (instance
      (export "memory" (memory $memory))
      (export "block" (func $block))
      (export "drop-pollable" (func $drop-pollable))
      (export "bytes" (func $bytes))
      (export "number" (func $number))
      (export "cheap-bytes" (func $cheap-bytes))
      (export "cheap-number" (func $cheap-number))
      (export "seed" (func $seed))
      (export "time" (func $time))
      (export "time-step" (func $time-step))
      (export "now" (func $now))
      (export "step" (func $step))
      (export "after" (func $after))
      (export "log" (func $log))))))

  (func (export "see") (param "wait-ms" u64) (result (list u8))
    (canon lift (core func $code "see") (memory $memory) (realloc $realloc))))
