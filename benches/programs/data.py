"""Makes the larger inputs: DIR/text, DIR/noise, DIR/workload.c. The same ones every time."""
import random
import sys

to = sys.argv[1]
random.seed(7)
letters = "abcdefghijklmnopqrstuvwxyz"
words = ["".join(random.choice(letters) for _ in range(random.randint(2, 9))) for _ in range(3000)]
text = " ".join(random.choice(words if random.random() < 0.7 else words[:100]) for _ in range(500000))
with open(f"{to}/text", "w") as f:
    f.writelines(text[at : at + 60] + "\n" for at in range(0, len(text), 60))
with open(f"{to}/noise", "wb") as f:
    f.write(random.randbytes(12000000))
FUNCTION = """
struct s%(n)d { u32 a[8]; u64 k; struct s%(n)d *next; };
static u64 f%(n)d(struct s%(n)d *p, u32 n) {
  u64 r = %(n)d;
  for (u32 i = 0; i < n; i++)
    for (struct s%(n)d *q = p; q; q = q->next) {
      r = r * 31 + q->a[(i + r) & 7];
      if (r & 1) q->k ^= r >> %(shift)d; else q->a[i & 7] += (u32)r;
      switch (r %% 5) { case 0: r += 7; break; case 1: r ^= q->k; break; case 3: r -= i; break; default: r <<= 1; }
    }
  return r;
}
u64 g%(n)d(u32 n) { struct s%(n)d x = {{1, 2, 3}, %(n)d, 0}, y = {{4}, 9, &x}; return f%(n)d(&y, n) + %(more)s; }
"""
with open(f"{to}/workload.c", "w") as f:
    f.write("typedef unsigned long u64; typedef unsigned u32;\n")
    for n in range(40):
        f.write(FUNCTION % {"n": n, "shift": n % 13 + 1, "more": f"g{n - 1}(n / 2)" if n else "0"})
