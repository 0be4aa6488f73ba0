;; Wants to start a thread by WASI.
(module
  (import "wasi" "thread-spawn" (func $spawn (param i32) (result i32)))
  (func (export "answer") (result i32) (call $spawn (i32.const 0))))
