my %c; open F,'</data/text'; while(<F>){ for my $w (/[a-z]+/g){ $c{$w}++ } } 
my @k=sort { $c{$b} <=> $c{$a} || $a cmp $b } keys %c; print "$k[$_] $c{$k[$_]}\n" for 0..20; my $s=0; for my $i (1..300000){ $s=($s*31+$i)%1000003 } print "$s\n";
