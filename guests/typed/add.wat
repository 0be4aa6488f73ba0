;; The typed ABI at its plainest: `{"module":"add","args":[2,3]}` answers `[5]`.
(module
  (func (export "add") (param i32 i32) (result i32)
    (i32.add (local.get 0) (local.get 1))))
