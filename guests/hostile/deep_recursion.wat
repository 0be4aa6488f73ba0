;; Calls itself: `for_ever` until the stack ends, `down` n times and back.
(module
  (func $for_ever (export "for_ever") (param i64) (result i64)
    (i64.add (call $for_ever (i64.add (local.get 0) (i64.const 1))) (i64.const 1)))
  (func $down (export "down") (param i32) (result i32)
    (if (result i32) (i32.eqz (local.get 0))
      (then (i32.const 0))
      (else (i32.add (call $down (i32.sub (local.get 0) (i32.const 1))) (i32.const 1))))))
