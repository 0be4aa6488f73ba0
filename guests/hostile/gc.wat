;; Makes an array on a collected heap.
(module
  (type $bytes (array (mut i8)))
  (func (export "answer") (result i32) (array.len (array.new_default $bytes (i32.const 42)))))
