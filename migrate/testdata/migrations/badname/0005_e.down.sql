create table {{schema}}.f ();
