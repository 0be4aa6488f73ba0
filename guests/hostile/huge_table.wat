;; Wants a table of 100 million elements before it starts.
(module
  (table 100000000 funcref)
  (func (export "answer") (result i32) (i32.const 42)))
