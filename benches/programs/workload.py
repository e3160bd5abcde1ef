import json
class P:
    __slots__=('x','y')
    def __init__(s,x,y): s.x=x; s.y=y
    def add(s,o): return P(s.x+o.x,s.y-o.y)
def fib(n): return n if n<2 else fib(n-1)+fib(n-2)
d={}
for i in range(60000):
    k='k%d'%(i%5000); d[k]=d.get(k,0)+i
a=P(0,0)
for i in range(60000): a=a.add(P(i,1))
l=sorted((str(i*7919%100003) for i in range(50000)),key=lambda s:s[::-1])
print(fib(20),a.x,a.y,len(d),sum(d.values()),l[77],len(json.dumps(d)),sum(i*i for i in range(100000)))
