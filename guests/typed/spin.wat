;; Computes for as long as it is let: `spin` for ever, `spin_times` for n turns of a loop (a few ns each).
(module
  (func (export "spin") (loop $again (br $again)))
  (func (export "spin_times") (param $n i64) (result i64)
    (local $done i64)
    (loop $again
      (local.set $done (i64.add (local.get $done) (i64.const 1)))
      (br_if $again (i64.lt_s (local.get $done) (local.get $n))))
    (local.get $done)))
