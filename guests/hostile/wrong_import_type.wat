;; Imports a function that we offer, by a signature that it does not have.
(module
  (import "host" "log" (func $log (param i64) (result i64)))
  (memory (export "memory") 1)
  (func (export "process") (param i32 i32) (result i32)
    (drop (call $log (i64.const 0)))
    (i32.const 0)))
