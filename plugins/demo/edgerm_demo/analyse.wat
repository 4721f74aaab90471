;; analyse(ptr, len) -> ptr << 32 | len     see weather.py for what it means
;;
;; in:  u32 seed, u32 resamples, i16 samples[]          out: i64 count, total, low, high, heating, p05, p95
;;
;; The bootstrap draws `resamples` weeks from the samples and counts their totals in a histogram, one
;; bucket per possible total, so that no sorting is needed. The host's input starts at 1024, the
;; result at 512, the histogram behind the input, on a page of its own.
(module
  (memory (export "memory") 1)
  (global $heating_limit i32 (i32.const 644))

  ;; The host asks where to put the input. One call per instance, so one fixed place will do.
  (func (export "alloc") (param $size i32) (result i32) (i32.const 1024))

  (func $sample (param $at i32) (param $index i32) (result i32)
    (i32.load16_s (i32.add (local.get $at) (i32.shl (local.get $index) (i32.const 1)))))

  ;; The total at which `rank` resamples lie below, counted from the smallest.
  (func $quantile (param $histogram i32) (param $base i32) (param $rank i32) (result i64)
    (local $bucket i32) (local $seen i32)
    (block $found
      (loop $next
        (local.set $seen (i32.add (local.get $seen)
          (i32.load (i32.add (local.get $histogram) (i32.shl (local.get $bucket) (i32.const 2))))))
        (br_if $found (i32.gt_u (local.get $seen) (local.get $rank)))
        (local.set $bucket (i32.add (local.get $bucket) (i32.const 1)))
        (br $next)))
    (i64.extend_i32_s (i32.add (local.get $base) (local.get $bucket))))

  (func (export "analyse") (param $ptr i32) (param $len i32) (result i64)
    (local $seed i32) (local $resamples i32) (local $at i32) (local $n i32)
    (local $i i32) (local $r i32) (local $x i32) (local $s i32)
    (local $total i32) (local $low i32) (local $high i32) (local $heating i32)
    (local $histogram i32) (local $base i32) (local $bytes i32) (local $slot i32) (local $out i32)
    (local.set $seed (i32.load (local.get $ptr)))
    (local.set $resamples (i32.load (i32.add (local.get $ptr) (i32.const 4))))
    (local.set $at (i32.add (local.get $ptr) (i32.const 8)))
    (local.set $n (i32.shr_u (i32.sub (local.get $len) (i32.const 8)) (i32.const 1)))

    ;; The plain figures.
    (local.set $low (i32.const 32767))
    (local.set $high (i32.const -32768))
    (loop $each
      (local.set $s (call $sample (local.get $at) (local.get $i)))
      (local.set $total (i32.add (local.get $total) (local.get $s)))
      (if (i32.lt_s (local.get $s) (local.get $low)) (then (local.set $low (local.get $s))))
      (if (i32.gt_s (local.get $s) (local.get $high)) (then (local.set $high (local.get $s))))
      (if (i32.lt_s (local.get $s) (global.get $heating_limit))
        (then (local.set $heating (i32.add (local.get $heating)
          (i32.sub (global.get $heating_limit) (local.get $s))))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $each (i32.lt_u (local.get $i) (local.get $n))))

    ;; Room for the histogram: n * (high - low) + 1 buckets of four bytes, from page 1 on.
    (local.set $base (i32.mul (local.get $n) (local.get $low)))
    (local.set $bytes (i32.shl (i32.add (i32.mul (local.get $n)
      (i32.sub (local.get $high) (local.get $low))) (i32.const 1)) (i32.const 2)))
    (local.set $histogram (i32.const 65536))
    (if (i32.lt_s (memory.grow (i32.add (i32.shr_u (local.get $bytes) (i32.const 16)) (i32.const 1)))
        (i32.const 0)) (then unreachable))

    ;; The bootstrap. Each resample has a xorshift32 generator of its own.
    (loop $resample
      (local.set $x (i32.or (i32.add (local.get $seed)
        (i32.mul (local.get $r) (i32.const 2654435761))) (i32.const 1)))
      (local.set $s (i32.const 0))
      (local.set $i (i32.const 0))
      (loop $draw
        (local.set $x (i32.xor (local.get $x) (i32.shl (local.get $x) (i32.const 13))))
        (local.set $x (i32.xor (local.get $x) (i32.shr_u (local.get $x) (i32.const 17))))
        (local.set $x (i32.xor (local.get $x) (i32.shl (local.get $x) (i32.const 5))))
        (local.set $s (i32.add (local.get $s) (call $sample (local.get $at)
          (i32.wrap_i64 (i64.shr_u
            (i64.mul (i64.extend_i32_u (local.get $x)) (i64.extend_i32_u (local.get $n)))
            (i64.const 32))))))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $draw (i32.lt_u (local.get $i) (local.get $n))))
      (local.set $slot (i32.add (local.get $histogram)
        (i32.shl (i32.sub (local.get $s) (local.get $base)) (i32.const 2))))
      (i32.store (local.get $slot) (i32.add (i32.load (local.get $slot)) (i32.const 1)))
      (local.set $r (i32.add (local.get $r) (i32.const 1)))
      (br_if $resample (i32.lt_u (local.get $r) (local.get $resamples))))

    (local.set $out (i32.const 512))
    (i64.store (local.get $out) (i64.extend_i32_u (local.get $n)))
    (i64.store offset=8 (local.get $out) (i64.extend_i32_s (local.get $total)))
    (i64.store offset=16 (local.get $out) (i64.extend_i32_s (local.get $low)))
    (i64.store offset=24 (local.get $out) (i64.extend_i32_s (local.get $high)))
    (i64.store offset=32 (local.get $out) (i64.extend_i32_s (local.get $heating)))
    (i64.store offset=40 (local.get $out) (call $quantile (local.get $histogram) (local.get $base)
      (i32.div_u (local.get $resamples) (i32.const 20))))
    (i64.store offset=48 (local.get $out) (call $quantile (local.get $histogram) (local.get $base)
      (i32.sub (i32.sub (local.get $resamples) (i32.const 1))
        (i32.div_u (local.get $resamples) (i32.const 20)))))
    (i64.or (i64.shl (i64.extend_i32_u (local.get $out)) (i64.const 32)) (i64.const 56))))
