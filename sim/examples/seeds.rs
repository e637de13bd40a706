fn main(){ let a:Vec<u64>=std::env::args().skip(1).map(|x|x.parse().unwrap()).collect();
 let runs=driftmesh_sim::run_seeds(a[0],a[1],&Default::default(),|r| if !r.violations.is_empty(){println!("SEED {} {}\n{:#?}",r.seed,r.options,&r.violations[..r.violations.len().min(4)]);});
 let mut rare=std::collections::BTreeMap::new(); for r in &runs{for (k,v) in &r.rare{*rare.entry(*k).or_insert(0u64)+=v;}}
 println!("{:?}\n{:#?}",rare,driftmesh_sim::Report::of(&runs)); }
