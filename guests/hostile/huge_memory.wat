;; Wants all 4 GiB before it starts.
(module
  (memory (export "memory") 65536)
  (func (export "answer") (result i32) (i32.const 42)))
