create table t(a integer primary key,b int,c text);
with recursive n(i) as (select 1 union all select i+1 from n where i<40000) insert into t select i,(i*7919)%10007,'row '||i from n;
create index ib on t(b);
select count(*),sum(a),max(c) from t where b between 100 and 5000;
select b%10,count(*),sum(length(c)) from t group by 1 order by 1;
select count(*) from t x join t y on x.b=y.a where x.a<20000;
