;; busy(rounds) -> the number of primes found: something to compute that takes a while on a small share.
(module
  (func (export "busy") (param $limit i32) (result i32)
    (local $n i32) (local $d i32) (local $found i32)
    (local.set $n (i32.const 2))
    (loop $each
      (local.set $d (i32.const 2))
      (block $done
        (loop $divide
          (if (i32.gt_u (i32.mul (local.get $d) (local.get $d)) (local.get $n))
            (then (local.set $found (i32.add (local.get $found) (i32.const 1))) (br $done)))
          (br_if $done (i32.eqz (i32.rem_u (local.get $n) (local.get $d))))
          (local.set $d (i32.add (local.get $d) (i32.const 1)))
          (br $divide)))
      (local.set $n (i32.add (local.get $n) (i32.const 1)))
      (br_if $each (i32.lt_u (local.get $n) (local.get $limit))))
    (local.get $found)))
