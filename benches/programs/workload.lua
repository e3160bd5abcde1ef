local t={} for i=1,200000 do t[i]=(i*7919)%100003 end table.sort(t) local s=0 for i=1,#t do s=(s*31+t[i])%1000000007 end print(s)
local function f(n) if n<2 then return n end return f(n-1)+f(n-2) end print(f(25))
local p={} for i=1,20000 do p[#p+1]=string.format("%d:%s",i,string.rep("x",i%7)) end print(#table.concat(p))
