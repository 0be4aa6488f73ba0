;; Throws an exception that nothing catches.
(module
  (tag $oops)
  (func (export "answer") (result i32) (throw $oops)))
