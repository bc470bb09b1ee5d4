-- What is wrong with the repository of signed files, as the node that reads it last saw it.
CREATE TABLE repository_problems (
    what            TEXT   NOT NULL,
    about           TEXT   NOT NULL,
    why             TEXT   NOT NULL,
    since_at        BIGINT NOT NULL,
    -- When the operators got a mail about it.
    told_at         BIGINT,
    PRIMARY KEY (what, about)
);
