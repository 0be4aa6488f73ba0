;; Grows a table: as many bytes of the host as a memory would be, if nobody counted them.
(module
  (table $table 1 funcref)

  (func (export "grow_until_refused") (result i32)
    (loop $more
      (br_if $more (i32.ge_s (table.grow $table (ref.null func) (i32.const 1000)) (i32.const 0))))
    (table.size $table))

  (func (export "grow_or_trap")
    (loop $more
      (if (i32.lt_s (table.grow $table (ref.null func) (i32.const 1000)) (i32.const 0)) (then (unreachable)))
      (br $more)))

  (func (export "grow_at_once") (param $elements i32) (result i32)
    (table.grow $table (ref.null func) (local.get $elements))))
