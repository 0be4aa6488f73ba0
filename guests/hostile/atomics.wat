;; An atomic instruction on a memory of its own: part of the threads proposal, without sharing anything.
(module
  (memory (export "memory") 1)
  (func (export "answer") (result i32) (i32.atomic.rmw.add (i32.const 0) (i32.const 42))))
