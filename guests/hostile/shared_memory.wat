;; A memory that threads would share.
(module
  (memory (export "memory") 1 2 shared)
  (func (export "answer") (result i32) (i32.const 42)))
