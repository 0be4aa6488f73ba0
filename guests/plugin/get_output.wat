;; A plugin that tells where its output lies by `get_output_ptr` and `get_output_len` instead of `host.set_output`:
;; it answers "[input]". Its `alloc` leaves one byte before and after the input for the brackets.
(module
  (memory (export "memory") 1)
  (global $ptr (mut i32) (i32.const 0))
  (global $len (mut i32) (i32.const 0))
  (func (export "alloc") (param $len i32) (result i32)
    (drop (memory.grow (i32.add (i32.div_u (local.get $len) (i32.const 65536)) (i32.const 1))))
    (i32.const 1025))
  (func (export "process") (param $ptr i32) (param $len i32) (result i32)
    (i32.store8 (i32.sub (local.get $ptr) (i32.const 1)) (i32.const 91))
    (i32.store8 (i32.add (local.get $ptr) (local.get $len)) (i32.const 93))
    (global.set $ptr (i32.sub (local.get $ptr) (i32.const 1)))
    (global.set $len (i32.add (local.get $len) (i32.const 2)))
    (i32.const 0))
  (func (export "get_output_ptr") (result i32) (global.get $ptr))
  (func (export "get_output_len") (result i32) (global.get $len)))
