;; A plugin whose `alloc` traps instead of answering.
(module
  (memory (export "memory") 1)
  (func (export "alloc") (param i32) (result i32) (unreachable))
  (func (export "process") (param i32 i32) (result i32) (i32.const 0)))
