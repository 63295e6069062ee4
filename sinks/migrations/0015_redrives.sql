-- What operators did about dead letters comes from the topic `redrives`, so that an emptied database knows it again.

ALTER TABLE redrives ADD COLUMN note uuid NOT NULL DEFAULT gen_random_uuid() UNIQUE;
