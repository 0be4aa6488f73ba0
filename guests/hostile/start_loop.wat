;; Never gets as far as its function: the start function loops for ever.
(module
  (func $start (loop $again (br $again)))
  (start $start)
  (func (export "answer") (result i32) (i32.const 42)))
