;; A plugin that tries to keep a value of 8 MiB, then ends well.
(module
  (import "host" "set_state" (func $set_state (param i32 i32 i32 i32)))
  (memory (export "memory") 129)
  (data (i32.const 0) "flood")
  (func (export "process") (param i32 i32) (result i32)
    (call $set_state (i32.const 0) (i32.const 5) (i32.const 65536) (i32.const 8388608))
    (i32.const 0)))
