;; Traps in its start function, before any function of it runs.
(module
  (func $start (unreachable))
  (start $start)
  (func (export "answer") (result i32) (i32.const 42)))
