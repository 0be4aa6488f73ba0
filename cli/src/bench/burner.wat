;; The benchmark's burner: so many steps of a generator of numbers, each of which needs the one before. Answers the last one.
(module
  (memory (export "memory") 1)
  (func (export "alloc") (param $len i32) (result i32) (i32.const 1024))
  (func (export "process") (param $at i32) (param $len i32) (result i32)
    (local $left i64) (local $number i64)
    (local.set $left (i64.const 1))
    (local.set $number (i64.load (local.get $at)))
    (loop $next
      (local.set $number
        (i64.add (i64.mul (local.get $number) (i64.const 6364136223846793005)) (i64.const 1442695040888963407)))
      (br_if $next (i64.ne (local.tee $left (i64.sub (local.get $left) (i64.const 1))) (i64.const 0))))
    (i64.store (local.get $at) (local.get $number))
    (i32.const 0)))
