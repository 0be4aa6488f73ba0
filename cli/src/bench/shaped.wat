;; The benchmark's guest as rustc lays one out: 17 pages of memory, a shadow stack that grows down from 1 MiB, its data above
;; that, and then its heap.
(module
  (memory (export "memory") 17)
  (global $stack (mut i32) (i32.const 1048576))
  (global (export "__data_end") i32 (i32.const 1049088))
  (global (export "__heap_base") i32 (i32.const 1049088))
  (data (i32.const 1048576) "called `Option::unwrap()` on a `None` value, a text that no call reads, as most guests have many")
  (func (export "alloc") (param $len i32) (result i32) (i32.const 1049088))
  (func (export "process") (param $at i32) (param $len i32) (result i32)
    (local $frame i32)
    (global.set $stack (local.tee $frame (i32.sub (global.get $stack) (i32.const 32))))
    (i32.store offset=8 (local.get $frame) (local.get $at))
    (i32.store offset=12 (local.get $frame) (i32.add (local.get $at) (local.get $len)))
    (call $upper (local.get $frame))
    (global.set $stack (i32.add (local.get $frame) (i32.const 32)))
    (i32.const 0))
  (func $upper (param $frame i32)
    (local $at i32) (local $end i32) (local $byte i32)
    (local.set $at (i32.load offset=8 (local.get $frame)))
    (local.set $end (i32.load offset=12 (local.get $frame)))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
        (local.set $byte (i32.load8_u (local.get $at)))
        (if (i32.lt_u (i32.sub (local.get $byte) (i32.const 97)) (i32.const 26))
          (then (i32.store8 (local.get $at) (i32.sub (local.get $byte) (i32.const 32)))))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br $next)))))
