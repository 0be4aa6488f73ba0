;; The smallest plugin: no imports, no `alloc`, no output call. It reverses its input where it stands, and the
;; input buffer is the answer.
(module
  (memory (export "memory") 1)
  (func (export "process") (param $left i32) (param $len i32) (result i32)
    (local $right i32) (local $kept i32)
    (local.set $right (i32.add (local.get $left) (i32.sub (local.get $len) (i32.const 1))))
    (block $done
      (loop $swap
        (br_if $done (i32.ge_s (local.get $left) (local.get $right)))
        (local.set $kept (i32.load8_u (local.get $left)))
        (i32.store8 (local.get $left) (i32.load8_u (local.get $right)))
        (i32.store8 (local.get $right) (local.get $kept))
        (local.set $left (i32.add (local.get $left) (i32.const 1)))
        (local.set $right (i32.sub (local.get $right) (i32.const 1)))
        (br $swap)))
    (i32.const 0)))
