"""Files that PyTorch 2.13 has written, and one in the form of Python 2, compressed as text.

Both formats of PyTorch are here. ``TRAINING`` is saved with an optimizer. The tensors are those of
``EXPECTED``: some share a storage, transposed or sliced.
"""

import base64
import zlib

import numpy as np

LEGACY = zlib.decompress(
    base64.b85decode(
        'c-noG*>c-d7{|3`Q`3#TtYLRpjO{3@%~F>(go3(7r687~%Jxa5R<`_?j>`llgKv@+u6O`0xa5*Y$V>1LJOVS!gil'
        'Kp%cyAP({j$y|M#75Ib-Q()&J+$^}m<y{C@pRbu3-^OQ!n{go<@a5QJeE@Sq#`_B|FxUNC@23#{Wb<9nR@%w~h0='
        'L{e{uv8l4+e2nY-uEnmyaT0T&Cp=v1|i3cAz3ngc>|7FL$Q=tBN%L9&QL}pVs;7Rvo0q}q+SbqEM&bkugg^k%O=E'
        '%b&~$*2fdNcs!sJg=54tgQkMr|*R9$k?)i~whpaR5{GQF(APPeJUPFaksaSKd8?@5dVo=gw)O9~__>FW>#f)`=*0'
        'i)*bM<Up*K75aRs*w%$KBzGoLs!hF~4C5hHNN%STGbr+=Kd)8#{N5W6{KM>-2v;v^h?=<btcXrHGSmDt#)JRt$L$'
        'rwuVCJd#R3%JG<q$CF=k>B#rG3{U)@?vt7BQya#tA?@Ofq3q)6RPz~*XH7h39Xrx=9e)$gr-E60F40gPo)-#?)mB'
        'Yw=~yC$M2r_>--+>(A@1Vkl<^A3t0rEv7LFL5O}t(pTu4$-*K<l`Y9}?l*~BtYWTL#01b-KA#+0{G%G(@O6YnGin'
        'NfPdsN*x#3Z%7UFz3{#IW0{?gE%5_R$>kzwD`7~a&(TfCYsj#5odr_0dbjXIS0Hu1!%RJ8s5tQ?-O8oITikZ<D7~'
        '1WGebjbQkA~feHdY*Z#1mU9ag44HvRhT+C9j7CZk@%2?<4*u*7kaUvDloLcmgB80|r$fr|~dPCP>WRS}l<Vp;=nn'
        'JE|TsN^Xxe@C0Cd>lkqU(e?<Hj_DstTWFLAse`;q&<RMar-^zBKXG<VIM3$hYxzc_-90z1GAxq$rT$tyocrTkG4j'
        'dF@p7Hiu)PGpRasLZ^@JL(Z0DmT?xU=sg77tgSS_vT$u?;o6F~;-*lK<Bo~D50Vf6KKdpGqa6fEzu2Vi^c?PBn9L'
        '(NzYb5}&=8}jLkH%q_>eAXOR=nrq_UEi%T5lZtafM0if*>7Nao72I$xHUg|eWjtSSlVwOKv*LC)Uy+rob5M=|@ln'
        'OuLi7lp!gP7uaq`(#2}5SGZ!liem8ll?;W8`&T2L!G(oc}NuVH{sxL&4DnrC>0yG{{^cI+L-'
    )
)
TRAINING = zlib.decompress(
    base64.b85decode(
        'c-p0x+jA3D9LG0JNYk_hX$yiPw|YqxLN3h>q{UDJxCrecx>PW1l5MiG$>z6vQfMI(#gx`7Ami=9@zF=$9AC8Kf1o'
        'p{GxFwx<BQDr?%+9R({y*Ur4V-JB+c19pWpZV&e`wpbewg%7{=paTCNRDFEcBZ(?}Jhl2pp?$q7jCm(R(mWEV5Jb'
        'k#bl!1(wzcz{?|vITIkP975(LB&5hcnALT0_a^CQA6O$A_d>_rz=R3HE&uKGZjhBrIA?D6g52^^1>RQkMG3KYxqe'
        'aFM?Yi;!VklfKKS0Ug)Ik0C;#O{?3*w(8W3scqdq9XlNmuRb*MrB1tJ}-s5UcRK?twlto_X9^#+}K`#euc`uD3AT'
        'gc8_h4Ot+<e5xufzRCC0CI}zu-SFO8EkU^#!b};4bKKgV0y#Vlk&5$77wWYYqlj7wedV4GWaA5y7JzY~t6qqS6R9'
        'FTn~8%wq)OVx4pFIO`y^Ejs221Y0@S#;-MEG+D}uu-(eoF~PdojymjQU3D1L$3KbSDGr|IyO+lo1bGUc(FZp&dl+'
        '{$6YHZB48ahlb|83`D8tm}SVtXp>D1i_{2c7zyOyb$DF~RDNxEFYXp<YH+%SYN*NGrZ6IX{}!j0(MD1sOValUt%n'
        '^P(oS%id%Jw`j5<h_(U4EqXn3p`KA7`mT)jOgT11P3^Hf%hzvOOP}{k1C~n6M2v#BQT~TU(|OMMWqlN;^43`rA0w'
        'I2S?1)R}{HPdx_Gb!0IVI+DPfkMBp)<dK|$x2NQgcA*C}&)POT%abFXAf?{LvijF<mz`jbbujyDG!6^<Vjbfz|io'
        '@$B>cN7bHmRp6H4bO=slU<4W}1AQ)u{r43<p`GSg}|}GmtaABnc2PgF!Gw7!29gdHp3R=o|^bn;e`oa>{}#6hU6W'
        'CFordiK-Wh%}^cWeGEWJ&w|p(LYe3VJ&uY%;{eUmAC;>x&B6If6)w;XoW?+bm>bN{`?J)1rbSi5<^dO3ho)udgGw'
        '1mMQK)4;ZhZ<y6I8(fVZk}nPsX_YdA+yETKv<ovBPs;ium=D-FUs`WtYi@dmt0l-6~na|o_-Ft2GeCv>{$ysA{n8'
        'Z4ZF_p0!|k5Xh6J~%Y`{TJl=l6NmXtHFn7;3FSdF_G@|682nCRi@$Ng@W@~MW|5ED@ro%SMW`^W^&4dN~J`zd%X%'
        'beAw3<WW6eN_=JO-75_Nf=~4T>x%dyBI%(r8R*x-=$6P)9Q;J#?P`Z)VRMJI@NRS}EyL0;r*)OE6jNHbAEXYQIND'
        'H!*FOi(5lK$n=bYE9=m<Sj>4}X)acHC3IMrN;B0C_<bQd?5V=mW-Gx?~9<StJ_j`~Tcb*3o@W4gE}_wJPrkq>_>L'
        '1YqPSiN53Cou82!?OG-JKAY&lR5I4)^d}qO5r(PZwm3rcFwAz`4&Zhcw;FEOaQhm!Z>d%#c(xKCwSN_@>uj`!Qps'
        '+k)+ztpi-dXS$k3^F=O2EE`7e$#i<!$r!F;w}Z+HEN+g|^Z^twg!Iv*OIAt61hD2Ul8h@_I?b`*3rs3d;**T0l@<'
        '44<!@1T)?82pJ}{r&G}_S-~`rILwuS0C^HyVO(v`$KLwe*B^0)9{#m*X+NHZTJzJ@QGA%Z~NgVSDx(vv)0aQu+@1'
        'Pqkq(>N04b;n{eM+eg6zFQ9CX+u@KXaf7M2f8g3rDbemM}o>eqhN?EfiK4|?4dr8!vzsjFneg6zHyDbHjPF)jK30'
        'KfrfgAzSQZAJox_=SDa3Gq9#6s~<I39}yWAS(>7K|j~!Dt{Dhy>%2;Yc8e`)F>)YQOog4j)zNAYz+3ji-tYEy`{G'
        '549qUr-&`4;UjM5o`(@D$#@*tW+Gj0A+?-AtT1C;-)MsMbuufQC#(!(b?!GYKJ8@e&I49}v1FP710Fj-&<ZftM>A'
        'm277(%mjOERupvw*rZUGpolO+eXfMF}ZSYFJ4O<p@d#0oH02{YhxTR^mBlN)T_4Cw2&1H`NVqfwgyH*5j%C4jx38'
        '?W^}c7TLcfze|JOn{m#AlR}MjSguh{BBQZ*^5TEGZRktGPb_jqQT%qgC@c+R)W1pj<as}uEvn9&fUxFX!-uprGH;'
        'oyL8NP(-Tjuk$k=4u5s&Q`snlev;PA?%&m+'
    )
)
PYTHON_2 = zlib.decompress(
    base64.b85decode(
        'c-l=+yGjE=6x~-g$rv@h3OmcKmPBl<OhD2Mz9IuQ%d(jrvm?V!?#^sPA&@3P@(mW2{+gd4SU52ez1(w(`#6Vtr_K'
        'V2uh-t^(Zl=oVK{XzK3u~SumjQ@6;ewoMLcGO;xdP2mmvK#VzJ`SOo2NAFCZ?@HB_)iDk_tO1|K`b6EYt{6?-Mw6'
        'kKb;VwR^o$)WaA8V7201*6)?Ds)w(tYGOmry7ABffGdF2Bbk{K5mDPj1Myn9@Vm-Ss0g^3x(o>4N5N3ShHNo0zoA'
        'RNL87cWXQl@4WpiriN0MG5mZU#^rY2lLyfp}R6-s5m-+@<*um}`5O%RWhYbylK5ViGwt~B=Wm)$$9PmWJc4jOxKU'
        '=FDLo=&mXDMJWY<mVfKfJ49uMhi-&H8X)4vm(tT-!Ron=T7|>wiqo40TKzOby;T&R?@@S<UV@l;L=U'
    )
)

EXPECTED = {
    'a.weight': np.arange(12, dtype=np.float32).reshape(3, 4) / 8,
    'a.weight_t': np.arange(12, dtype=np.float32).reshape(3, 4).T / 8,
    'a.slice': np.float32([0.75, 1.25]),
    'half': np.float16([0.1, 65504]).astype(np.float32),
    'bf': np.float32([1.5, -2, 113 * 2.0**121]),
    'double': np.float32([1 / 3]),
    'n': np.array(7),
    'mask': np.array([True, False]),
    'bytes': np.uint8([0, 255]),
    'int8': np.int8([-1]),
    'empty': np.zeros((0, 4), np.float32),
    'param': np.ones(2, np.float32),
}
