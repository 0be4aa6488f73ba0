;; A memory with 64-bit addresses.
(module
  (memory (export "memory") i64 1)
  (func (export "answer") (result i32) (i32.load (i64.const 0))))
