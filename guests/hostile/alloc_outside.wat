;; A plugin whose `alloc` offers room that is not there.
(module
  (memory (export "memory") 1)
  (func (export "alloc") (param i32) (result i32) (i32.const 0xfffffff0))
  (func (export "process") (param i32 i32) (result i32) (i32.const 0)))
