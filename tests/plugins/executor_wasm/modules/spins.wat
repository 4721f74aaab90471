;; Uses a processor, for ever or for a number of rounds.
(module
  (memory (export "memory") 1)
  (func (export "_start") (loop $again (br $again)))
  (func (export "rounds") (param $rounds i64) (result i64)
    (loop $again
      (local.set $rounds (i64.sub (local.get $rounds) (i64.const 1)))
      (br_if $again (i64.gt_s (local.get $rounds) (i64.const 0))))
    (local.get $rounds)))
