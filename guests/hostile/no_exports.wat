;; Valid, and of no use: nothing to call.
(module (func (result i32) (i32.const 42)))
