;; A plugin that answers more than any output limit allows: 11 MiB.
(module
  (import "host" "set_output" (func $set_output (param i32 i32)))
  (memory (export "memory") 176)
  (func (export "process") (param i32 i32) (result i32)
    (call $set_output (i32.const 0) (i32.const 11534336))
    (i32.const 0)))
